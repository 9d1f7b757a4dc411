"""Real V4L2 drivers without a camera: in a small virtual machine, with a test driver and a software webcam."""
