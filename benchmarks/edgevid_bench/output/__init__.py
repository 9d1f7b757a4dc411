"""The report in every format, and on a terminal."""
