export const device = {
  title: "Device",
};
