/** All words of the page in English. Another language is a file of the same shape. */
import { alerts } from "./en/alerts";
import { audit } from "./en/audit";
import { cycle } from "./en/cycle";
import { device } from "./en/device";
import { fleet } from "./en/fleet";
import { manufacturer } from "./en/manufacturer";
import { pipeline } from "./en/pipeline";
import { search } from "./en/search";
import { session } from "./en/session";
import { shared } from "./en/shared";
import { sterility } from "./en/sterility";
import { today } from "./en/today";
import { trace } from "./en/trace";

export const text = { ...shared, today, fleet, device, session, sterility, alerts, manufacturer, pipeline, audit, search, trace, cycle };
