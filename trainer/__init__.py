import os

# onnxruntime tells its maker what it runs, and leaves an identifier in the home folder, unless it is told not to before
# it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
