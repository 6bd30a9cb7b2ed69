"""The command line: one file per verb. The only place that prints, opens users' files and knows exit codes."""
