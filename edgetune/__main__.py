from edgetune.cli.app import main

main()
