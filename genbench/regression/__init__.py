"""Base and head to verdicts and an exit code: pure logic, without processes and without torch."""
