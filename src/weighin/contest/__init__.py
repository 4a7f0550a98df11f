"""The organizer: many submissions into a leaderboard, bundles checked, contests handed out."""
