"""What judging adds to the metrics of edgetune/metrics: samples of items and answers, which metrics a suite means, and
intervals."""
