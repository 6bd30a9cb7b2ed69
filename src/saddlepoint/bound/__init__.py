"""Lower bounds on m*: linear and interval relaxations of the captured graph, with the proof a checker needs."""
