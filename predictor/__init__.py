import os

# onnxruntime sends usage data to Microsoft and writes an identifier to the home folder, unless this variable is set
# before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
