"""`haaro decode`: Mobile IP datagrams from hex, files, captures and interfaces, made readable."""
