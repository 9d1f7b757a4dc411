"""What needs more than a machine of CI: each folder is a lab, run by hand, whose report is kept."""
