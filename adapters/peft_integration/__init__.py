"""How the package lives with PEFT from outside: registration, model cards, fixes."""
