"""A board without hardware: a pty, and behind it real MicroPython, its flash a directory."""
