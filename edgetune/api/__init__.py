"""The public functions, one a file, as `edgetune.NAME`; each command of the command line calls one of them."""
