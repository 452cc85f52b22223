// Enclosure of a sensor board: box and lid. openscad -D part=\"box\" -o box.stl enclosure.scad; the same with "lid".
// All in millimetres. Measure your parts first: modules of the same name differ by a millimetre or two.

part = "both"; // "box", "lid" or "both"

inner = [78, 62, 30];  // length, width, height
wall = 2.0;            // of the box
radar_wall = 1.2;      // before the radar: thin plastic, no metal, no metallic paint
clearance = 0.3;       // between box and lid
pir_diameter = 23.5;   // dome of an HC-SR501
gas_diameter = 20.5;   // cap of an MQ sensor
usb = [12, 8];         // cable
screw = 2.6;           // for M3, cut by the screw

$fn = 32;
outer = [inner.x + 2 * wall, inner.y + 2 * wall, inner.z + wall];

module rounded(size, radius = 3) {
    linear_extrude(size.z)
        offset(radius) translate([radius, radius]) square([size.x - 2 * radius, size.y - 2 * radius]);
}

module vents(count, length) {
    for (i = [0 : count - 1]) translate([i * 4, 0, 0]) cube([2, wall * 3, length]);
}

module posts(height) {
    for (x = [wall + 4, outer.x - wall - 4], y = [wall + 4, outer.y - wall - 4])
        translate([x, y, wall]) difference() {
            cylinder(d = 7, h = height);
            cylinder(d = screw, h = height + 1);
        }
}

module box() {
    difference() {
        rounded(outer);
        translate([wall, wall, wall]) rounded([inner.x, inner.y, inner.z + 1], 2);
        // the gas sensor's heat leaves by itself: slots low and high, on the side away from the PIR
        for (z = [wall + 3, outer.z - 13]) translate([outer.x - 34, outer.y - wall * 2, z]) vents(7, 8);
        for (z = [wall + 3, outer.z - 13]) translate([outer.x - 34, -wall, z]) vents(7, 8);
        translate([-1, outer.y / 2 - usb.x / 2, wall + 2]) cube([wall + 2, usb.x, usb.y]);
        // two key holes for a wall
        for (x = [outer.x * 0.25, outer.x * 0.75]) translate([x, outer.y / 2, -1]) {
            cylinder(d = 7, h = wall + 2);
            translate([-1.75, 0, 0]) cube([3.5, 8, wall + 2]);
        }
    }
    posts(inner.z);
}

module lid() {
    difference() {
        union() {
            rounded([outer.x, outer.y, wall]);
            translate([wall + clearance, wall + clearance, wall])
                difference() {
                    rounded([inner.x - 2 * clearance, inner.y - 2 * clearance, 3], 2);
                    translate([wall, wall, -1])
                        rounded([inner.x - 2 * clearance - 2 * wall, inner.y - 2 * clearance - 2 * wall, 5], 2);
                    for (x = [4, inner.x - 4], y = [4, inner.y - 4]) translate([x - clearance, y - clearance, -1])
                        cylinder(d = 8, h = 5);
                }
        }
        translate([18, outer.y / 2, -1]) cylinder(d = pir_diameter, h = wall + 2);
        translate([outer.x - 20, outer.y / 2, -1]) cylinder(d = gas_diameter, h = wall + 2);
        // the radar looks through thinner plastic
        translate([outer.x / 2 - 11, outer.y / 2 - 18, radar_wall]) cube([18, 36, wall]);
        for (x = [wall + 4, outer.x - wall - 4], y = [wall + 4, outer.y - wall - 4])
            translate([x, y, -1]) cylinder(d = 3.4, h = wall + 2);
    }
}

if (part == "box" || part == "both") box();
if (part == "lid" || part == "both") translate([0, part == "both" ? outer.y + 10 : 0, 0]) lid();
