"""What every HTTP door shares: strict heads, streamed bodies, ranges, deadlines, and error → status."""
