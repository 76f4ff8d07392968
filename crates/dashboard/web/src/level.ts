/** How urgent something is. Shape and word come before colour. */
export type Level = "stop" | "look" | "due" | "fine";

/** The most urgent first. */
export const RANK: Record<Level, number> = { stop: 0, look: 1, due: 2, fine: 3 };
