"""What finished folds say: the only readers of folds.json and cases.csv; every number has one function here."""
