"""What the numbers of each subject mean: its signals, its promises, and when somebody is called."""
