import subprocess
import sys

from headroom.processes import ports

CHOOSE = """
import sys
from headroom.processes import ports
ports._RANGE = range(int(sys.argv[1]), int(sys.argv[1]) + 2)
print(ports.free_port())
"""


def test_no_port_is_chosen_twice_by_this_process_or_another() -> None:
    first = ports.free_ports(2)[0]
    ports._HELD.pop().close()
    # One of the two is held by this process. Both are free.
    chosen = subprocess.run([sys.executable, "-c", CHOOSE, str(first)], capture_output=True, text=True, check=True)
    assert int(chosen.stdout) == first + 1
    assert ports.is_free(first)


def test_a_row_of_ports_has_no_gap() -> None:
    found = ports.free_ports(5)
    assert len(found) == 5
    assert all(ports.is_free(port) for port in found)


def test_only_the_newest_ports_are_held() -> None:
    chosen = [ports.free_port() for _ in range(2 * ports._MOST_HELD)]
    # A held socket that nobody closes is an error here, as every warning is.
    assert [one.getsockname()[1] for one in ports._HELD] == chosen[-ports._MOST_HELD :]
