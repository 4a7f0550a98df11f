"""From a folder of labelled images and a contest's rules to a lightweight model anyone rebuilds."""
