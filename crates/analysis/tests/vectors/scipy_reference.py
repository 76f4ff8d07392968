"""Writes scipy_reference.json, the figures that tests/reference.rs compares with. Needs numpy and scipy (1.17 was used):

    python3 scipy_reference.py > scipy_reference.json

Every method is another one than the crate's: tolerance factors by adaptive quadrature (quad) and a root finder (brentq) over
scipy's distributions, run lengths by Markov chains with two numbers of states, extrapolated.
"""

import json

import numpy as np
import scipy
from scipy import integrate, optimize, stats


def half_width(u, coverage):
    outside = lambda r: stats.norm.sf(r - u) + stats.norm.sf(r + u) - (1 - coverage)
    return optimize.brentq(outside, 0, u + 40, xtol=1e-13, rtol=1e-14)


def tolerance_factor(n, coverage, confidence):
    df = n - 1

    def reached(k):
        integrand = lambda w: stats.norm.pdf(w) * stats.chi2.sf(df * half_width(w / np.sqrt(n), coverage) ** 2 / k**2, df)
        return 2 * integrate.quad(integrand, 0, 9, epsabs=1e-11, epsrel=1e-10, limit=200)[0] - confidence

    howe = stats.norm.isf((1 - coverage) / 2) * np.sqrt(df * (1 + 1 / n) / stats.chi2.ppf(1 - confidence, df))
    return optimize.brentq(reached, 0.5 * howe, 2 * howe, xtol=1e-9)


def cusum_markov(k, h, shift, start, states):
    width = 2 * h / (2 * states - 1)
    i = np.arange(states)
    edges = (i[None, :] - i[:, None] + 0.5) * width + k - shift
    chain = stats.norm.cdf(edges)
    chain[:, 1:] -= stats.norm.cdf(edges[:, 1:] - width)
    lengths = np.linalg.solve(np.eye(states) - chain, np.ones(states))
    return lengths[0] if start == 0 else np.interp(start, i * width, lengths)


def extrapolated(f):
    coarse, fine = f(500), f(1000)
    return fine + (fine - coarse) / 3


def cusum(k, h, shift, fast):
    start = h / 2 if fast else 0
    side = lambda shift, start: extrapolated(lambda m: cusum_markov(k, h, shift, start, m))
    up0, down0, up, down = side(shift, 0), side(-shift, 0), side(shift, start), side(-shift, start)
    return (up * down0 + down * up0 - up0 * down0) / (up0 + down0)


def ewma_markov(lam, limit, shift, states):
    bound = limit * np.sqrt(lam / (2 - lam))
    states = 2 * (states // 2) + 1
    width = 2 * bound / states
    centres = -bound + (np.arange(states) + 0.5) * width
    mid = (centres[None, :] - (1 - lam) * centres[:, None]) / lam - shift
    chain = stats.norm.cdf(mid + width / 2 / lam) - stats.norm.cdf(mid - width / 2 / lam)
    return np.linalg.solve(np.eye(states) - chain, np.ones(states))[states // 2]


def main():
    rng = np.random.default_rng(20)
    x = [-8.0, -5.0, -3.0, -1.5, -0.3, 0.0, 0.7, 2.0, 4.0, 7.5]
    p = [1e-12, 1e-9, 1e-6, 1e-4, 0.001, 0.025, 0.05, 0.3, 0.5, 0.8, 0.95, 0.999, 1 - 1e-9]
    t_df = [1, 2, 3, 7, 19, 58, 300, 9998]
    factors = [
        (n, coverage, confidence)
        for n in (2, 3, 4, 5, 7, 10, 17, 30, 60, 93, 120, 300, 1000, 3000, 10000)
        for coverage, confidence in ((0.9, 0.8), (0.9, 0.999), (0.95, 0.95), (0.975, 0.95), (0.99, 0.9), (0.99, 0.99), (0.999, 0.8), (0.999, 0.999))
    ]
    t = np.round(np.sort(rng.uniform(0, 90, 25)), 3)
    y = np.round(0.04 * t + rng.normal(0, 0.5, 25), 3)
    line = stats.linregress(t, y)
    print(
        json.dumps(
            {
                "source": f"scipy {scipy.__version__}, numpy {np.__version__}: scipy_reference.py",
                "normal_above": [[v, stats.norm.sf(v)] for v in x],
                "normal_quantile": [[v, stats.norm.ppf(v)] for v in p],
                "chi_square_above": [[v * df, df, stats.chi2.sf(v * df, df)] for df in (1, 2, 4.5, 9, 59, 999.5, 9999) for v in (1e-3, 0.3, 0.9, 1, 1.1, 2.5) if stats.chi2.sf(v * df, df) > 1e-200],
                "student_above": [[v, df, stats.t.sf(v, df)] for df in t_df for v in (-3.0, 0.0, 0.01, 0.5, 1.0, 2.0, 5.0, 12.0)],
                "student_upper_quantile": [[v, df, stats.t.isf(v, df)] for df in t_df for v in (1e-6, 0.0005, 0.025, 0.05, 0.3, 0.7)],
                "f_quantile": [[v, a, b, stats.f.ppf(v, a, b)] for v in (0.025, 0.095, 0.5, 0.95) for a, b in ((1, 5), (2, 87), (4, 145), (9, 290), (49, 1450))],
                "tolerance_factor": [[n, c, g, tolerance_factor(n, c, g)] for n, c, g in factors],
                "cusum": [[k, h, s, fast, cusum(k, h, s, fast)] for k, h in ((0.25, 8.01), (0.5, 4), (0.5, 5), (0.5, 8.053), (1, 2.5)) for s in (0, 0.25, 1, 3) for fast in (False, True)],
                "ewma": [[lam, limit, s, extrapolated(lambda m: ewma_markov(lam, limit, s, m))] for lam, limit in ((0.05, 2.615), (0.1, 2.814), (0.1, 3.749), (0.5, 3.071), (1, 3)) for s in (0, 0.25, 0.5, 1, 3)],
                "regression": {"t": t.tolist(), "y": y.tolist(), "slope": line.slope, "intercept": line.intercept, "se_slope": line.stderr, "se_intercept": line.intercept_stderr},
                "wilson": [[i, n, g, *stats.binomtest(i, n).proportion_ci(g, method="wilson")] for i, n, g in ((0, 5, 0.95), (3, 7, 0.9), (58, 60, 0.95), (60, 60, 0.99), (9950, 10000, 0.999))],
            },
            indent=1,
            default=float,
        ).replace("\n   ", " ").replace("\n  ]", "]")
    )


main()
