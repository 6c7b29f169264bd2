//! What the board hands to the application.

use embassy_stm32::adc::{self, Adc};
use embassy_stm32::exti::{self, ExtiInput};
use embassy_stm32::gpio::{Level, Output, Pull, Speed};
use embassy_stm32::i2c::{self, I2c, Master};
use embassy_stm32::mode::Async;
use embassy_stm32::rcc::{MSIRange, Pll, PllMul, PllPreDiv, PllRDiv, PllSource, Sysclk, mux};
use embassy_stm32::rng::{self, Rng};
use embassy_stm32::spi::{self, Spi};
use embassy_stm32::time::Hertz;
use embassy_stm32::{Config, bind_interrupts, dma, peripherals};
use forebay_board::Parts;

use crate::flash::{Flash, FlashError};
use crate::{IotPlatform, Wifi, console};

/// MSI is 48 MHz for the random generator, and the core runs from it at 80 MHz.
const CLOCK_HZ: u32 = 80_000_000;
const SENSORS_HZ: Hertz = Hertz(400_000);
/// The module takes up to 20 MHz; this leaves room for the board's wiring.
const WIFI_HZ: Hertz = Hertz(10_000_000);

bind_interrupts!(struct Interrupts {
    I2C2_EV => i2c::EventInterruptHandler<peripherals::I2C2>;
    I2C2_ER => i2c::ErrorInterruptHandler<peripherals::I2C2>;
    DMA1_CHANNEL4 => dma::InterruptHandler<peripherals::DMA1_CH4>;
    DMA1_CHANNEL5 => dma::InterruptHandler<peripherals::DMA1_CH5>;
    DMA2_CHANNEL1 => dma::InterruptHandler<peripherals::DMA2_CH1>;
    DMA2_CHANNEL2 => dma::InterruptHandler<peripherals::DMA2_CH2>;
    RNG => rng::InterruptHandler<peripherals::RNG>;
    EXTI1 => exti::InterruptHandler<embassy_stm32::interrupt::typelevel::EXTI1>;
});

/// The sensors' bus: I2C2.
pub type Sensors = I2c<'static, Async, Master>;

/// Takes the board into use. Called once.
///
/// # Errors
/// Never, on this board.
pub fn parts() -> Result<Parts<IotPlatform, Flash, Wifi, Sensors>, FlashError> {
    let chip = embassy_stm32::init(config());
    console::open(CLOCK_HZ);

    let mut bus = i2c::Config::default();
    bus.frequency = SENSORS_HZ;
    let sensors = I2c::new(chip.I2C2, chip.PB10, chip.PB11, chip.DMA1_CH4, chip.DMA1_CH5, Interrupts, bus);

    let mut wire = spi::Config::default();
    wire.frequency = WIFI_HZ;
    let spi = Spi::new(
        chip.SPI3,
        chip.PC10,
        chip.PC12,
        chip.PC11,
        chip.DMA2_CH2,
        chip.DMA2_CH1,
        Interrupts,
        wire,
    );
    let wifi = Wifi::new(
        spi,
        Output::new(chip.PE0, Level::High, Speed::VeryHigh),
        ExtiInput::new(chip.PE1, chip.EXTI1, Pull::Down, Interrupts),
        Output::new(chip.PE8, Level::High, Speed::Low),
    );
    let adc = Adc::new_with_config(chip.ADC1, adc::AdcConfig::default());
    Ok(Parts {
        platform: IotPlatform::new(Rng::new(chip.RNG, Interrupts), adc),
        flash: Flash::open()?,
        wifi,
        sensors,
    })
}

fn config() -> Config {
    let mut config = Config::default();
    config.rcc.msi = Some(MSIRange::RANGE48M);
    config.rcc.pll = Some(Pll {
        source: PllSource::MSI,
        prediv: PllPreDiv::DIV6,
        mul: PllMul::MUL20,
        divp: None,
        divq: None,
        divr: Some(PllRDiv::DIV2),
    });
    config.rcc.sys = Sysclk::PLL1_R;
    config.rcc.mux.clk48sel = mux::Clk48sel::MSI;
    config.rcc.mux.adcsel = mux::Adcsel::SYS;
    config
}
