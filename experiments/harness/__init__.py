"""What every experiment stands on: settings, data, sweeps, statistics, plots and the report."""
