"""A board without hardware: a pty behind which real MicroPython runs from a directory, its flash."""
