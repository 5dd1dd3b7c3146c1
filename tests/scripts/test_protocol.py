"""The generated classes match the .proto files."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("model_store/protocol", "predictor/protocol", "epp/extproc/protocol")
PROTOS = [str(path.relative_to(ROOT)) for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.proto"))]


def test_generated_files_are_up_to_date(tmp_path: Path) -> None:
    folders = ["--proto_path=.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *folders, *PROTOS], cwd=ROOT, check=True)
    generated = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*_pb2.py*")}
    assert len(generated) == 2 * len(PROTOS)
    stale = [str(path) for path, text in generated.items() if (ROOT / path).read_text() != text]
    assert not stale, "run scripts/protocol"
