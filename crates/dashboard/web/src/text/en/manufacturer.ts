export const manufacturer = {
  title: "Manufacturer",
};
