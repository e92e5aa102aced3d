"""Reports: terminal tables (`terminal`) and one self-contained HTML page (`html`) from the same numbers (`model`)."""
