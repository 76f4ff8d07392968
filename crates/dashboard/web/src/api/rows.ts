/** Rows of the interface that pages name. */
import type { Row } from "./client";

export type Overview = Row<"Overview">;
export type FleetDevice = Row<"FleetDevice">;
export type Evidence = Row<"Evidence">;
export type AlertDelivery = Row<"AlertDelivery">;
export type Hit = Row<"Hit">;
