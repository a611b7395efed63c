"""Reference model: the rules of schedules, written a second time over plain lists."""
