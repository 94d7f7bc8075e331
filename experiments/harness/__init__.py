"""What all experiments share: settings, data, sweeps, statistics, plots and the report."""
