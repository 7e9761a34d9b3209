"""What a study file may say: from YAML with line numbers to a validated `Study`."""
