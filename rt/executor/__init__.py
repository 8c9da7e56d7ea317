"""Runs the team's code: plain functions in the main thread, actions on trio in a second one, and the lease that both keep."""
