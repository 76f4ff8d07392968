export const sterility = {
  title: "Sterility",
};
