"""How components are chained, compiled and submitted, and the command line."""
