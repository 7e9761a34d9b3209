"""What results say of claims: paired tests, looks, power, both sources of error."""
