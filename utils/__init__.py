"""Files, text, video files, devices, errors: nothing that knows a network or a run."""
