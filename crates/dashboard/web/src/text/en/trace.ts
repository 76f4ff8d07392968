export const trace = {
  alert: "Alert",
  missing: (n: string) => `, ${n} missing`,
  lost: (n: string) => `, ${n} lost`,
  unknownCompleteness: "How much was received could not be asked. The list may be incomplete.",
};
