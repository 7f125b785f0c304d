"""The paper's maths: schedules, objectives, sampling, inversion, mixes; torch alone."""
