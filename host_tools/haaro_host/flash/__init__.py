"""From a board's folder and a fleet to a box that runs: image, table, esptool, first boot.

`boards.py` reads boards/NAME, `build.py` is `make firmware`, `site.py` adds a site's files,
`burn.py` drives esptool, `cli.py` is `haaro flash`.
"""
