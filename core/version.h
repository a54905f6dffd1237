/*
 * The version, in one place.
 */
#pragma once

#define FLYWHEEL_VERSION "0.1.0"
