"""The benchmark, the ablation of docs/results.md and the proof of docs/reliability.md."""
