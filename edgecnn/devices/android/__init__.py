"""Android phones by way of adb."""
