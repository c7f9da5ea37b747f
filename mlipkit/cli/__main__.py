from mlipkit.cli import main

main()
