"""Runs team code: functions in the main thread, actions on trio in a second thread."""
