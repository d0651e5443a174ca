"""Synthetic CT studies and the sample model, with the scripts that make both."""
