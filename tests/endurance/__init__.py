"""Scripts that wear the runtime out, for longer than a test may take: ``python -m tests.endurance.NAME --help``."""
