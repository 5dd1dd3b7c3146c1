"""What happened to requests, from the picker's journal of outcomes."""
