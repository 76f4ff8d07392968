export const fleet = {
  title: "Fleet",
};
