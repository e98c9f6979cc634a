"""What monitoring sees of the packets, and what it shows of them: tidy tables, figures, pages and reports."""
