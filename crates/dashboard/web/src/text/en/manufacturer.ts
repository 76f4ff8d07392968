import { count, figure, percent } from "../../format";

export const manufacturer = {
  title: "Manufacturer",
  /** What the first screen says. */
  worstShare: (cohort: string, share: string, low: string, high: string, out: string, n: string) =>
    `Most out of tolerance: ${cohort}, ${share} of its injections (95 % interval ${low} to ${high}), ${out} of ${n}.`,
  noneOut: (n: string) => `None of ${n} judged injections is out of tolerance.`,
  noShare: "No share out of tolerance can be given: no model of these units has a registered tolerance, or no dose was measured yet.",
  drifted: (cohort: string, error: number, low: number | null, high: number | null, day: number, units: number) =>
    `Furthest from zero: ${cohort}, ${percent(error)} at ${count(day)} days${low == null || high == null ? " (one unit, so no interval)" : ` (95 % interval ${percent(low)} to ${percent(high)})`}, ${count(units)} units.`,
  standOut: (n: number) => (n === 0 ? "No unit stands out." : n === 1 ? "1 unit stands out from its model." : `${count(n)} units stand out from their models.`),
  privacy: "Units have pseudonyms and days instead of times. No clinic, site or session is in these figures.",
  by: "Cohorts by",
  kinds: { model: "model", firmware: "model and firmware", lot: "model and lot" } as Record<string, string>,
  channel: "Channel",
  show: "Cohorts in the chart",
  most: (most: number, n: number) => `${count(most)} of ${count(n)} cohorts at a time, so that they can be told apart. Those with the most injections come first.`,
  drift: {
    title: "Error by days since calibration",
    means: "Mean error of the injections of a cohort in percent of their set points. The band is its 95 % interval; units are the clusters. Day 0 is the first day on which a unit was used under its calibration.",
    x: "days since calibration", y: "error, %",
    label: (cohorts: string) => `Mean error by days since calibration with 95 % intervals: ${cohorts}.`,
    interval: "95 % interval",
    unit: (unit: string) => `unit ${unit}`,
    unitsNote: "Dashed lines: the mean error of units that stand out.",
    point: (cohort: string, day: number, error: number, low: number | null, high: number | null, units: number, n: number) =>
      `${cohort}, day ${count(day)}: ${percent(error)}${low == null || high == null ? "" : ` (${percent(low)} to ${percent(high)})`}\n${count(units)} units, n = ${count(n)}`,
    thinned: (days: number) => `Each point stands for ${count(days)} days: their mean, and the widest interval.`,
    empty: "No injection of a unit of yours has arrived on this channel. Units belong to a manufacturer when the clinic registers them with its name.",
  },
  tolerance: {
    title: "Out of tolerance",
    means: "Injections whose error lies outside the tolerance that is registered for the model, of all injections of those models. The interval is Wilson's, 95 %; it takes injections as independent, so for few units it is too narrow.",
    dose: "This table is about doses.",
    model: "Model", firmware: "Firmware", lot: "Lot", units: "Units", n: "n", out: "Out", share: "Share out, %", interval: "95 % interval, %",
    empty: "No judged injection yet. A model needs a registered tolerance, and its units measured doses.",
    notSaid: "not said",
  },
  outliers: {
    title: "Units that stand out",
    means: "Distance of the unit's mean error from the median of its model, in robust standard deviations (1.4826 times the median distance). Beyond 3.5 a unit stands out.",
    unit: "Unit", error: "Error, %", cohort: "Median of the model, %", z: "Distance", rank: "Rank",
    empty: "No unit with a measured value on this channel yet.",
    days: (unit: string) => `Unit ${unit} by day`,
    daysLabel: (unit: string, n: string) => `Error of unit ${unit} on ${n} days.`,
    day: (day: string, error: number, n: number) => `${day}: ${percent(error)}, n = ${count(n)}`,
    noDays: "This unit has no injection with a measured value on this channel.",
    close: "Hide the unit",
  },
  share: (value: number) => `${figure(100 * value)} %`,
};
